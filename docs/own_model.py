"""A model of your own in the study: medgan compare CONFIG compare.function=own_model:train (from this folder)"""

import itertools

import torch
from monai.losses import DiceCELoss
from monai.networks.nets import DenseNet, UNet
from torch.utils.data import DataLoader


def train(training, validation, test, *, seed, steps, task):
    """Train on the arm's samples; predict label maps or class probabilities, in the order of the lists."""
    torch.manual_seed(seed)
    segmentation = task.kind == "segmentation"
    channels = test[0]["image"].shape[0]
    if segmentation:
        network = UNet(3, channels, task.outputs, channels=(8, 16, 32), strides=(2, 2), norm="instance")
        loss_function = DiceCELoss(to_onehot_y=True, softmax=True)
    else:
        group_norm = ("group", {"num_groups": 4})
        network = DenseNet(3, channels, task.outputs, 16, growth_rate=8, block_config=(2, 2), norm=group_norm)
        loss_function = torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3)

    # Each time through the loader is the arm's next epoch, augmented anew.
    batches = itertools.chain.from_iterable(DataLoader(training, batch_size=4) for _ in itertools.count())
    for batch in itertools.islice(batches, steps):
        loss = loss_function(network(batch["image"]), batch["label" if segmentation else "target"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    @torch.no_grad()
    def predict(samples):
        logits = [network(sample["image"][None])[0] for sample in samples]
        return [x.argmax(0, keepdim=True) if segmentation else x.softmax(0) for x in logits]

    network.eval()
    return {"validation": predict(validation), "test": predict(test)}
