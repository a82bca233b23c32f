"""Print the shell lines of a Markdown file, in order: what a reader would type.

Blocks marked ```sh are printed, those marked ```python are printed as a call of Python. A block
below the comment <!-- developers --> is left out: `.ci/run` types those itself.
"""

import re
import shlex
import sys
from pathlib import Path

text = Path(sys.argv[1]).read_text(encoding="utf-8")
for mark, language, body in re.findall(
    r"(<!-- developers -->\n)?^```(sh|python)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL
):
    if mark:
        continue
    print(body if language == "sh" else f"python -c {shlex.quote(body)}\n")
