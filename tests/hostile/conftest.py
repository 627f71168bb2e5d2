"""The suite's modules, which also run by themselves in a process of another user."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
