import pytest
from ml_collections import ConfigDict

from mi_contrast.core import config as configs
from mi_contrast.core.errors import UserError

FLAGS = {"config=": "a config", "workdir=": "a folder", "list": "the table"}
RING = "configs/ring_moco.py"


def parse(*arguments):
    return configs.parse(list(arguments), FLAGS)


def test_a_dict_may_be_written_as_a_call():
    found = configs.convert("ydbdr", "dict(kind='bands', space='rgb', sigma=1.)", "config.views.split")
    assert found == {"kind": "bands", "space": "rgb", "sigma": 1.0}
    assert configs.convert({"size": 32}, "dict(tile=(8, 8), stride=2)", "config.data.options") == {
        "tile": (8, 8),
        "stride": 2,
    }
    for text in ("dict(kind=open('x'))", "dict(**{'kind': 1})", "dict(1)"):
        assert configs.convert("ydbdr", text, "config.views.split") == text, "no code is run: it stays a word"


def test_a_config_its_variant_and_changes():
    call = parse(
        f"--config={RING}:cifar10_small", "--workdir", "runs/x", "--config.optim.lr=.5", "--config.steps=1e3",
        "--config.method.terms.0.temperature=0.3", "--config.data.shared=('digit',)", "--config.data.dir=/some/where",
    )  # fmt: skip
    assert (call.name, call.variant, call.flags) == ("ring_moco", "cifar10_small", {"workdir": "runs/x"})
    assert call.config.optim.lr == 0.5  # a schedule gives way to a number
    assert call.config.steps == 1000 and isinstance(call.config.steps, int)
    assert call.config.method.terms[0]["temperature"] == 0.3
    assert call.config.data.shared == ("digit",)
    assert call.config.data.dir == "/some/where"
    assert call.config.model.width == 16


def test_a_number_gives_way_to_a_schedule():
    text = "{'kind': 'linear', 'a': 1., 'b': 0., 'start': 0., 'end': 1.}"
    call = parse(f"--config={RING}", f"--config.method.momentum={text}")
    assert call.config.method.momentum.kind == "linear"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--confg=x"], "did you mean '--config'"),
        (["--config=configs/rign_moco.py"], "did you mean 'configs/ring_moco.py'"),
        ([f"--config={RING}:cifar11"], "did you mean 'cifar10'"),
        ([f"--config={RING}", "--config.optm.lr=1"], "did you mean 'optim'"),
        ([f"--config={RING}", "--config.optim.rl=1"], "did you mean 'lr'"),
        ([f"--config={RING}", "--config.lr=1"], "did you mean 'config.optim.lr'"),
        ([f"--config={RING}", "--config.steps=many"], "takes a int"),
        ([f"--config={RING}", "--config.steps=1.5"], "takes a int"),
        ([f"--config={RING}", "--config.log.tensorboard=1"], "takes a bool"),
        ([f"--config={RING}", "--config.steps.more=1"], "has no fields"),
        ([f"--config={RING}", "--config.method.terms.3.weight=1"], "no item '3'"),
        ([f"--config={RING}", "--workdir"], "has no value"),
        ([f"--config={RING}", "--workdir=a", "--workdir=b"], "given twice"),
        ([f"--config={RING}", "--list=yes"], "takes no value"),
        (["--config.steps=3"], "without --config"),
        (["runs/x"], "unexpected argument"),
    ],
)
def test_mistakes_are_one_line_with_the_nearest_word(arguments, said):
    with pytest.raises(UserError) as error:
        parse(*arguments)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_config_files_that_are_broken(tmp_path):
    for text, said in [
        ("def get_config(:", "does not run"),
        ("import no_such_module", "does not run"),
        ("x = 1", "has no get_config"),
        ("def get_config(): return {}['a']", "correct the name of the field"),
    ]:
        file = tmp_path / "broken.py"
        file.write_text(text)
        with pytest.raises(UserError, match=said):
            configs.load_config(str(file))
    file.write_text("def get_config(): return 1")
    with pytest.raises(UserError, match="no variants"):
        configs.load_config(f"{file}:digits")


def test_plain_refuses_what_is_no_data():
    assert configs.to_plain_data(ConfigDict({"a": [1, (2.0, None)]})) == {"a": (1, (2.0, None))}
    with pytest.raises(UserError, match=r"config\.a\.0 is a object"):
        configs.to_plain_data({"a": (object(),)})


def test_differences_are_named_and_lists_equal_tuples():
    old = {"a": {"b": [1, 2], "c": 3}, "d": True}
    assert configs.differences(old, {"a": {"b": (1, 2), "c": 3}, "d": True}) == []
    assert configs.differences(old, {"a": {"b": (1, 5), "c": 4}, "d": 1, "e": 0}) == ["a.b.1", "a.c", "d", "e"]


def test_help_prints_the_flags(capsys):
    with pytest.raises(SystemExit) as stop:
        parse("--help")
    assert stop.value.code == 0
    assert "--workdir=" in capsys.readouterr().out


def test_an_empty_dict_takes_any_dict_and_a_full_one_its_own_fields():
    config = ConfigDict({"data": {"options": {}, "size": {"wide": 3}}})
    changed = configs.change(config, "data.options", "{'tile': 224}")
    assert changed.data.options.to_dict() == {"tile": 224}
    assert configs.change(changed, "data.options", "{}").data.options.to_dict() == {}
    for path, text in (("data.options", "3"), ("data.size", "{'high': 3}")):
        with pytest.raises(UserError, match=f"config.{path} takes"):
            configs.change(config, path, text)


@pytest.mark.parametrize("flag, field", [("steps", "steps"), ("epochs", "steps"), ("batch_size", "data.batch")])
def test_a_usual_flag_names_the_field_that_it_means(flag, field):
    with pytest.raises(UserError, match=rf"unknown flag --{flag}; did you mean '--config\.{field}'"):
        configs.parse([f"--{flag}=3"], {"config=": "", "stop_at=": ""})
    with pytest.raises(UserError, match="did you mean '--step'"):
        configs.parse(["--steps=3"], {"step=": ""})
