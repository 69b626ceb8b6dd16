"""The note beside the progress bar, and whose lines stay in metrics.jsonl."""

from tunewright.training.metrics import MetricsLog, keep_phases, read_metrics

ROW = {"step": 1, "loss": 1.25, "tokens_per_s": 10_000.0, "num_tokens": 100}


def test_the_note_shows_loss_speed_and_share_of_the_peak(tmp_path):
    log = MetricsLog(tmp_path / "m.jsonl", flops_per_token=32e9, peak_flops=989e12)
    assert log.note(ROW).startswith("loss 1.250  10,000 tok/s  32% of peak")
    assert "0.3% of peak" in log.note(ROW | {"tokens_per_s": 100.0})
    assert "peak" not in MetricsLog(tmp_path / "m.jsonl").note(ROW)
    assert "chosen 75%" in log.note(ROW | {"accuracy": 0.75})


def test_lines_of_other_phases_stay_and_dropped_lines_go(tmp_path):
    file = tmp_path / "m.jsonl"
    for phase in ("sft", "dpo"):
        log = MetricsLog(file, phase)
        for step in (1, 2, 3):
            log.write(ROW | {"step": step})
    MetricsLog(file, "dpo").keep_until(1)
    assert [(row["phase"], row["step"]) for row in read_metrics(file)] == [
        ("sft", 1),
        ("sft", 2),
        ("sft", 3),
        ("dpo", 1),
    ]
    keep_phases(file, {"sft"})
    assert {row["phase"] for row in read_metrics(file)} == {"sft"}


def test_a_process_that_is_not_the_first_writes_nothing(tmp_path):
    MetricsLog(tmp_path / "m.jsonl", writes=False).write(ROW)
    assert not (tmp_path / "m.jsonl").exists()
