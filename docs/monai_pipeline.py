"""RandDAGANd in a MONAI segmentation pipeline: python docs/monai_pipeline.py COHORT CHECKPOINT"""

import sys

import torch
from monai.data import DataLoader, Dataset
from monai.losses import DiceCELoss
from monai.networks.nets import UNet
from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    LoadImaged,
    ResizeWithPadOrCropd,
    ScaleIntensityRangePercentilesd,
)

from medgan.data.cohort import read_cohort
from medgan.transforms import RandDAGANd

cohort, checkpoint = sys.argv[1:3]
cases = [{"image": c.images[0], "label": c.label} for c in read_cohort(cohort).cases if c.label]
keys = ["image", "label"]
pipeline = Compose([
    LoadImaged(keys), EnsureChannelFirstd(keys), ResizeWithPadOrCropd(keys, (32, 48, 32)),
    ScaleIntensityRangePercentilesd("image", 0.5, 99.5, 0, 1, clip=True),
    RandDAGANd(keys, checkpoint, prob=0.5, input_range=(0, 1)),  # the one line
])  # fmt: skip
loader = DataLoader(Dataset(cases, pipeline), batch_size=4, shuffle=True)
network = UNet(3, 1, out_channels=3, channels=(8, 16, 32), strides=(2, 2))
loss_function, optimizer = DiceCELoss(to_onehot_y=True, softmax=True), torch.optim.AdamW(network.parameters(), 2e-3)
for batch in loader:
    loss = loss_function(network(batch["image"].as_tensor()), batch["label"].as_tensor())
    optimizer.zero_grad(), loss.backward(), optimizer.step()
    print(f"loss {float(loss.detach()):.3f}")
