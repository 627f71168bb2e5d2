"""The scheduled job's two forms parse, keep secrets out, and call the command line as it is."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from flataudit.cli import app

SCHEDULE = Path(__file__).parents[2] / "pipelines" / "schedule"
FIELD = re.compile(r"(\*|\d+)([-,/]\d+)*$")


def cron_line() -> tuple[list[str], str, str]:
    """Fields, user and command of the one line that runs something."""
    lines = (SCHEDULE / "crontab").read_text(encoding="utf-8").splitlines()
    (line,) = [one for one in lines if one and not one.startswith("#") and "=" not in one.partition(" ")[0]]
    parts = line.split(maxsplit=6)
    return parts[:5], parts[5], parts[6]


def manifest() -> dict[str, Any]:
    """The CronJob."""
    found: dict[str, Any] = yaml.safe_load((SCHEDULE / "cronjob.yaml").read_text(encoding="utf-8"))
    return found


def container() -> dict[str, Any]:
    (one,) = manifest()["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    found: dict[str, Any] = one
    return found


def parsed(arguments: list[str]) -> tuple[str, dict[str, Any]]:
    """What the real parser makes of a command line; an option that it lacks is an error."""
    name, *rest = arguments
    command = get_command(app).commands[name]  # type: ignore[attr-defined]
    return name, command.make_context(name, rest).params


def calls() -> list[list[str]]:
    """Arguments of flataudit in the crontab and in the CronJob."""
    (line,) = [part for part in cron_line()[2].split("&&") if part.strip().startswith("flataudit ")]
    return [shlex.split(line)[1:], container()["args"]]


def test_the_crontab_has_five_fields_and_a_user() -> None:
    fields, user, command = cron_line()
    assert all(FIELD.match(field) for field in fields), fields
    assert user == "flataudit"
    assert "%" not in command, "cron ends a command at %"


@pytest.mark.parametrize("arguments", calls(), ids=["crontab", "cronjob"])
def test_the_command_line_accepts_the_call(arguments: list[str]) -> None:
    name, options = parsed(arguments)
    assert name == "audit"
    assert options["config"] == Path("/etc/flataudit/flataudit.yaml")


def test_an_option_that_does_not_exist_would_be_found() -> None:
    with pytest.raises(Exception, match="No such option"):
        parsed([*calls()[0], "--no-such-option"])


def test_the_cronjob_runs_at_the_crontab_s_time() -> None:
    assert manifest()["spec"]["schedule"] == " ".join(cron_line()[0])


def test_the_cronjob_has_no_rights_it_does_not_need() -> None:
    pod = manifest()["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True and pod["securityContext"]["runAsUser"] > 0
    assert pod["automountServiceAccountToken"] is False
    rights = container()["securityContext"]
    assert rights["readOnlyRootFilesystem"] is True and rights["allowPrivilegeEscalation"] is False
    assert rights["capabilities"] == {"drop": ["ALL"]}


def test_the_cronjob_s_secrets_come_from_the_environment_only() -> None:
    assert container()["envFrom"] == [{"secretRef": {"name": "flataudit-registry"}}]
    assert not [one["name"] for one in container()["env"] if "MLFLOW_TRACKING" in one["name"]]
    assert "://" not in (SCHEDULE / "cronjob.yaml").read_text(encoding="utf-8")


def test_what_the_cronjob_writes_lies_on_a_volume_it_may_write() -> None:
    one = container()
    writable = [mount["mountPath"] for mount in one["volumeMounts"] if not mount.get("readOnly")]
    _, options = parsed(one["args"])
    variables = {variable["name"]: variable["value"] for variable in one["env"]}
    for path in (str(options["out"]), one["workingDir"], variables["HOME"], variables["TMPDIR"]):
        assert any(path == mount or path.startswith(f"{mount}/") for mount in writable), path


def test_every_volume_is_declared_and_mounted() -> None:
    pod = manifest()["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    assert {volume["name"] for volume in pod["volumes"]} == {mount["name"] for mount in container()["volumeMounts"]}
