"""Trained networks handed on: safetensors, ONNX with parity checked, and a card from records."""
