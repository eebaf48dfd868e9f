"""How a loaded model computes: padding-free attention, oneDNN and int8 layers, device maps."""
