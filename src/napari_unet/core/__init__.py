"""The engine's torch-free half: vocabulary, stacks, tiles, objects, metrics, model folders."""
