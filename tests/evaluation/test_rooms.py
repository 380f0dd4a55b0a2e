import subprocess
import sys

import pytest

PROGRAM = """
import sys
import mi_contrast.evaluate, mi_contrast.report
print([m for m in sys.modules if m.startswith(("mi_contrast.training", "mi_contrast.methods", "tensorflow."))])
"""


@pytest.mark.slow
def test_judges_and_pages_import_neither_training_nor_methods():
    found = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
