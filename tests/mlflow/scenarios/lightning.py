"""A network trained by PyTorch Lightning that logs itself."""

import mlflow
import torch
from lightning import pytorch as lightning
from mlflow import MlflowClient


class Line(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def training_step(self, batch, _index):
        x, y = batch
        loss = torch.nn.functional.mse_loss(self.layer(x), y)
        self.log("loss", loss, on_epoch=True)
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def check_lightning_logs_itself():
    torch.manual_seed(5)
    torch.set_num_threads(1)
    x = torch.randn(64, 2)
    rows = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, x.sum(1, keepdim=True)), batch_size=16)
    mlflow.pytorch.autolog(log_every_n_epoch=1)
    trainer = lightning.Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    model = Line()
    with mlflow.start_run() as run:
        trainer.fit(model, rows)
    found = mlflow.get_run(run.info.run_id)
    assert found.data.params["epochs"] == "3" or found.data.params.get("optimizer_name") == "SGD"
    names = [name for name in found.data.metrics if name.startswith("loss")]
    assert names
    history = MlflowClient().get_metric_history(run.info.run_id, names[0])
    assert len(history) >= 3
