import os

# ONNX Runtime would begin to tell its maker of models as soon as it is imported, from a thread that no fork survives.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
