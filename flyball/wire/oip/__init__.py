"""Open Inference Protocol v2 over REST, with plain records beside it; `python -m flyball.wire.oip` is the data plane.

Specification: kserve/open-inference-protocol, `specification/protocol/inference_rest.md`; Triton's "Binary tensor data
extension".
"""
