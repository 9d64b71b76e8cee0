"""datatrove's URLFilter on the URLs and lists of a JSON file: runs in the peer's environment.

python datatrove_urls.py FILE     prints a JSON list with the reason or null for each URL
"""

import json
import logging
import sys
from pathlib import Path

from datatrove.data import Document
from datatrove.pipeline.filters import URLFilter


def main(path: Path) -> None:
    logging.disable(logging.WARNING)
    given = json.loads(path.read_text())
    peer = URLFilter(**given["lists"], use_integrated_lists=False)
    verdicts = [peer.filter(Document(text="", id="", metadata={"url": url})) for url in given["urls"]]
    sys.stdout.write(json.dumps([None if verdict is True else verdict[1] for verdict in verdicts]))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
