"""`tracin-func influence`: what each training pair did to test pairs."""

from typing import Any

from tracin_func.cli.errors import guarded, importing
from tracin_func.cli.options import INFLUENCE_ONLY, JOB, takes


@guarded
@takes(*JOB, *INFLUENCE_ONLY)
def command(**options: Any) -> None:
    """Score what each training pair did to test pairs: Σ_t ⟨∇ℓ_p, η_t ∇ℓ_q⟩; positive: p lowered the loss of q.

    Without options it runs on the embedded default: synthetic tones and a ranker trained on them, made on first
    use. Results are merged into METADATA_DIR/{material}_{frequency}_influence_metadata.json.
    """
    with importing():
        from tracin_func.cli.job import run_job

    run_job("influence", options)
