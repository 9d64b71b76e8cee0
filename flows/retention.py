"""The retention flow: texts from before redaction go after some days, on a schedule or by `gristmill retain`."""

import logging
from datetime import UTC, datetime

from prefect import flow
from prefect.artifacts import create_markdown_artifact

from flows.beginning import begin
from infra.environment import Environment
from infra.lock import only_one
from infra.retained import STAGES_LOCK
from tasks.retention import Retention, RetentionSettings, retain_texts

logger = logging.getLogger(__name__)


@flow(name="retain", persist_result=False)
def retain(retention: RetentionSettings = RetentionSettings(), environment: Environment = Environment()) -> Retention:
    """Delete pages and texts from before redaction that are old enough; close private files that others can read.

    RunFailed where a corpus is being built on this machine for longer than it waits.
    """
    store = begin(environment)
    with only_one(store, STAGES_LOCK, "a build of a corpus, or another retention,", 3600 * retention.wait_hours):
        found = retain_texts(store, retention, datetime.now(UTC))
    for path in (*found.readable, *found.links):
        logger.warning("%s %s", path, "could be read by others" if path in found.readable else "is a link: left alone")
    logger.info("retention: %s", found.text().partition("\n")[0])
    create_markdown_artifact(found.text(), key="retention", description="Texts from before redaction that were deleted")
    return found
