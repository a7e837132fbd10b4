"""`tracin-func self`: how hard each training pair is."""

from typing import Any

from tracin_func.cli.errors import guarded, importing
from tracin_func.cli.options import JOB, takes


@guarded
@takes(*JOB)
def command(**options: Any) -> None:
    """Score how hard each training pair is: self(p) = Σ_t η_t ‖∇ℓ_p‖².

    Without options it runs on the embedded default: synthetic tones and a ranker trained on them, made on first
    use. Results are merged into METADATA_DIR/{material}_{frequency}_metadata.json.
    """
    with importing():
        from tracin_func.cli.job import run_job

    run_job("self", options)
