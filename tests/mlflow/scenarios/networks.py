"""A PyTorch network that is logged, loaded and registered; the 3.x line of the client."""

import mlflow
import numpy as np
import torch
from mlflow import MlflowClient


def check_a_network_is_logged_loaded_and_registered():
    torch.manual_seed(5)
    torch.set_num_threads(1)
    net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)).eval()
    rows = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    with torch.no_grad():
        wanted = net(torch.from_numpy(rows)).numpy()
    with mlflow.start_run() as run:
        name = f"net-{run.info.run_id[:6]}"
        info = mlflow.pytorch.log_model(net, name="net", input_example=rows, registered_model_name=name)
    assert np.allclose(mlflow.pyfunc.load_model(info.model_uri).predict(rows), wanted)
    loaded = mlflow.pytorch.load_model(f"models:/{name}/1")
    with torch.no_grad():
        found = (loaded.module() if hasattr(loaded, "module") else loaded)(torch.from_numpy(rows))
    assert np.allclose(found.numpy(), wanted)
    assert MlflowClient().get_model_version(name, "1").run_id == run.info.run_id


def check_a_network_kept_as_a_pickle_is_stored_and_loaded_by_the_client():
    net = torch.nn.Linear(2, 1)
    rows = np.ones((2, 2), np.float32)
    with mlflow.start_run():
        info = mlflow.pytorch.log_model(net, name="net", input_example=rows, serialization_format="pickle")
    loaded = mlflow.pytorch.load_model(info.model_uri)
    assert torch.equal(loaded(torch.from_numpy(rows)), net(torch.from_numpy(rows)))
