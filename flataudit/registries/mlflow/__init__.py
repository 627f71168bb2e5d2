"""The MLflow adapter: the only part of flataudit that imports MLflow (beside the demo's training pipeline)."""

import os

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # MLflow reads it when it is imported, just below

from flataudit.registries.mlflow.adapter import MlflowRegistry

__all__ = ["MlflowRegistry"]
