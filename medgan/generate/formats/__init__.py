"""How siblings are written: NIfTI, DICOM, an nnU-Net raw data set, a Decathlon."""
