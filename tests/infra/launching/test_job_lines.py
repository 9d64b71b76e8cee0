"""Lines of a job, from the files of its nodes."""

from pathlib import Path

from infra.launching.job_lines import JobLines
from infra.launching.ranks import RankOutput


def test_each_line_is_handed_over_once_and_whole(tmp_path: Path) -> None:
    lines: list[str] = []
    first, second = tmp_path / "7_0_log.out", tmp_path / "7_1_log.out"
    read = JobLines(tmp_path, "7", 2, RankOutput(lines.append, ()))
    read.pass_on()
    first.write_text("[rank0]:step 1\n[rank0]:st")
    second.write_text("[rank1]:step 1\n")
    read.pass_on()
    assert lines == ["[rank 0] step 1", "[rank 1] step 1"]
    with first.open("a") as more:
        more.write("ep 2\n[rank0]:the end")
    read.pass_on()
    assert lines[2:] == ["[rank 0] step 2"]
    read.pass_on(last=True)
    assert lines[3:] == ["[rank 0] the end"]


def test_a_job_that_is_found_again_is_read_from_near_its_end(tmp_path: Path) -> None:
    (tmp_path / "7_0_log.out").write_text("".join(f"[rank0]:step {n}\n" for n in range(100)))
    lines: list[str] = []
    JobLines(tmp_path, "7", 1, RankOutput(lines.append, ()), last_bytes=40).pass_on()
    assert lines == ["[rank 0] step 98", "[rank 0] step 99"]
