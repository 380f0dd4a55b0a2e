from mi_contrast.core.errors import run_job
from mi_contrast.report import main
from tests.reporting.fake import make_run


def test_report_writes_the_page_and_prints_where(tmp_path, capsys):
    root = make_run(tmp_path / "run")
    assert run_job(main, [str(root)]) == 0
    assert capsys.readouterr().out.strip() == str(root / "report.html")
    assert (root / "report.html").stat().st_size < 2_000_000  # 0.9 MB of it is the script of Vega
    assert run_job(main, [f"--workdir={root}"]) == 0


def test_mistakes_are_one_line_and_exit_2(tmp_path, capsys):
    for arguments in ([], [str(tmp_path)], [str(tmp_path / "absent")], ["--wordir=x"], [str(tmp_path), "more"]):
        assert run_job(main, arguments) == 2
        said = capsys.readouterr().err
        assert said.startswith("mi_contrast: error: ") and said.count("\n") == 1
