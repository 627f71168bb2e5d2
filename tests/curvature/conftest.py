"""Makes the small networks importable by the tests beside and in the probes' folder."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
