"""Sends a file with a generated client, and waits until its rows are stored.

python upload.py URL KEY FILE ROWS
"""

import sys
import time
from pathlib import Path

from carga_client import AuthenticatedClient
from carga_client.api.uploads import get_rows, get_upload, send_file
from carga_client.models import Problem, Status, Upload, UploadForm
from carga_client.types import File

ENDED = {Status.COMPLETED, Status.PARTIAL, Status.FAILED, Status.CANCELLED, Status.UNDONE}


def when_ended(client, upload_id):
    for _ in range(60):
        upload = get_upload.sync(upload_id, client=client)
        assert isinstance(upload, Upload), upload
        if upload.status in ENDED:
            return upload
        time.sleep(1)
    raise TimeoutError(f"upload {upload_id} has not ended")


def main(url, key, file, rows):
    client = AuthenticatedClient(url, token=key, prefix="", auth_header_name="X-API-Key")
    file = Path(file)
    form = UploadForm(file=File(payload=file.open("rb"), file_name=file.name))
    sent = send_file.sync(client=client, body=form)
    assert isinstance(sent, Upload), sent
    upload = when_ended(client, sent.id)
    assert upload.status is Status.COMPLETED, upload
    assert upload.rows.inserted == int(rows), upload.rows
    assert upload.filename == file.name, upload.filename
    stored = get_rows.sync_detailed(upload.id, client=client)
    assert len(stored.content.splitlines()) == int(rows) + 1, "the rows differ"
    # A refusal is a problem document, whose fields the client knows.
    missing = get_upload.sync("00000000-0000-4000-8000-000000000000", client=client)
    assert isinstance(missing, Problem) and missing.code == "upload_not_found", missing
    print(f"Python: {upload.rows.inserted} rows of {upload.filename} are stored")


main(*sys.argv[1:])
