"""A command that ends at any step of what it does to its files: the older file or the newer one, and nothing left over.

``python -m tests.kill_anywhere`` does the same at random moments, for every command that writes.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

# Forked for each step from a process that has imported everything; the child ends there as a power cut would.
PROGRAM = """
import json, os, shutil, sys
from pathlib import Path
from builder.growing.change import rename_head
from builder.settings.growing import GrowConfig
import edge_runtime.interpreter
edge_runtime.interpreter.find_interpreter()
source, folder = Path(sys.argv[1]), Path(sys.argv[2])
file = folder / "main.tflite"

def run(steps):
    child = os.fork()
    if child == 0:
        left = [steps]
        def step(event, arguments):
            if event not in ("open", "os.rename", "os.remove", "os.mkdir", "os.truncate", "os.chmod", "fsync"):
                return
            if event == "open" and not str(arguments[0]).startswith(str(folder)):
                return
            if event == "open" and not Path(str(arguments[0])).name.startswith(".") and arguments[2] & 3:
                os._exit(7)  # nothing is written in its place
            if left[0] == 0:
                os._exit(9)
            left[0] -= 1
        sync = os.fsync
        os.fsync = lambda handle: (step("fsync", ()), sync(handle))
        sys.addaudithook(step)
        rename_head(GrowConfig(file, file), "garden", "yard")
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def lay_out():
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source, folder)

lay_out()
assert run(-1) == 0
new = file.read_bytes()
old = (source / "main.tflite").read_bytes()
found = []
for steps in range(1000):
    lay_out()
    code = run(steps)
    content = file.read_bytes()
    entry = {"step": steps, "code": code, "content": "old" if content == old else "new" if content == new else "torn"}
    report = json.loads((folder / "main.report" / "report.json").read_text("utf-8"))
    entry["built"] = report.get("passed")
    if content == old:
        run(-1)
    else:
        from builder.support.files import locked
        for place in (file, folder / "main.report" / "report.json"):
            with locked(place):
                pass
    entry["left"] = [p.name for p in folder.rglob("*") if p.name not in ("main.tflite", "main.report", "report.json")]
    found.append(entry)
    if code == 0:
        break
print(json.dumps(found))
"""


def test_a_change_may_end_at_any_step(tiny_file: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "main.report").mkdir(parents=True)
    (source / "main.tflite").write_bytes(tiny_file.read_bytes())
    (source / "main.report" / "report.json").write_text(json.dumps({"output": "main.tflite", "passed": True}))
    command = [sys.executable, "-c", PROGRAM, str(source), str(tmp_path / "work")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent.parent, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert [entry for entry in found if entry["content"] == "torn" or not entry["built"] or entry["left"]] == []
    assert {entry["code"] for entry in found} == {0, 9}
    assert len(found) > 20
    states = [entry["content"] for entry in found]
    assert states == sorted(states, key=["old", "new"].index)  # once it is there, it stays
