"""Recording what happens: runs with their metrics, and the predictions a deployment made with the labels that came.

Runs are kept by the ledger; rows (metric points, predictions, labels) flow into storage. What the data plane loads
(`predictions`) reaches neither the ledger nor the control loop.
"""
