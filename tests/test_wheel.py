"""The wheel that is built from this tree runs by itself."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.support.places import ROOT


@pytest.mark.thorough
def test_a_wheel_runs_in_a_clean_environment(tmp_path: Path, embedded_500hz: object) -> None:
    """The other packages are those of this environment: a copy of torch would take gigabytes."""
    clean, variables = tmp_path / "clean", {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(*words: str | Path) -> str:
        done = subprocess.run(words, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    pip = sys.executable, "-m", "pip"
    run(*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path / "wheels", ROOT)
    (wheel,) = (tmp_path / "wheels").glob("tracin_func-*.whl")
    run(sys.executable, "-m", "venv", "--without-pip", clean)
    run(*pip, "--python", clean / "bin" / "python", "install", "--quiet", "--no-deps", "--no-index", wheel)
    own = Path(run(clean / "bin" / "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    (own / "others.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    place = run(clean / "bin" / "python", "-c", "import tracin_func; print(tracin_func.__file__)")
    assert Path(place.strip()).is_relative_to(own)
    assert "plastic_deg" in run(clean / "bin" / "tracin-func", "self", "--top", "3")
    assert (tmp_path / "metadata" / "plastic_500hz_metadata.json").exists()
