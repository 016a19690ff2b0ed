"""An emulator of the SageMaker runtime API with a real model behind it."""
