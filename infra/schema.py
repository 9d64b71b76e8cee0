"""The Arrow schemas that flow between stages, in one place.

Every document carries where it came from (source, file, place in the file, record digest) from the first stage to
the last, so that any training token can be traced to the bytes it was made of.
"""

import pyarrow as pa

PROVENANCE = [
    pa.field("id", pa.string(), nullable=False),
    pa.field("url", pa.large_string()),
    pa.field("source", pa.string(), nullable=False),
    pa.field("file", pa.large_string(), nullable=False),
    pa.field("offset", pa.int64(), nullable=False),
    pa.field("record_digest", pa.string()),
    pa.field("fetched_at", pa.timestamp("us", tz="UTC")),
    pa.field("opt_out", pa.string()),
    pa.field("license", pa.large_string()),
]
"""`id` is 32 hexadecimal digits of SHA-256 over path and offset; `source` names the crawl or collection; `offset`
counts bytes of an archive as stored (compressed) and of a JSONL file's text, and rows of a Parquet file;
`record_digest` is what the archive states (algorithm:value) or sha1 of the payload; `opt_out` is how the record
refuses use for training (the directives that it carries, separated by commas), `license` the address of the licence
that it links to."""

RESPONSES = pa.schema(
    [
        *PROVENANCE,
        pa.field("content_type", pa.large_string()),
        pa.field("charset", pa.string()),
        pa.field("payload", pa.large_binary(), nullable=False),
    ]
)
"""What fetch keeps: bodies of successful HTML responses, transfer and content encodings removed."""

DOCUMENTS = pa.schema(
    [
        *PROVENANCE,
        pa.field("text", pa.large_string()),
        pa.field("language", pa.string()),
        pa.field("language_score", pa.float32()),
        pa.field("quality", pa.float32()),
        pa.field("bucket", pa.string()),
    ]
)
"""What every stage from extract to redact keeps. Language columns are null before the signals stage; `quality` (the
score of the quality model, higher is better) and `bucket` (its name in the mixture) before the filter stage, and after
it where no model is set."""

DROPPED = pa.schema(
    [
        *DOCUMENTS,
        pa.field("stage", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("value", pa.float64()),
        pa.field("detail", pa.large_string()),
    ]
)
"""A dropped document with the stage and reason code that dropped it, and the value that decided."""

QUARANTINE = pa.schema(
    [
        pa.field("source", pa.string(), nullable=False),
        pa.field("file", pa.large_string(), nullable=False),
        pa.field("offset", pa.int64()),
        pa.field("url", pa.large_string()),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("detail", pa.large_string()),
    ]
)
"""A record, or with a null offset a whole shard, that could not be read."""


def tokens_schema(vocabulary_size: int, tokenizer_sha256: str, end_of_document: int) -> pa.Schema:
    """Schema of a token shard: one row for each document, its last token the end-of-document token.

    `tokens` is large_list<uint16> where the vocabulary fits, large_list<uint32> otherwise; `text_bytes` is the
    length of the document's UTF-8 text, the denominator of bits per byte; `source`, `language` and `bucket` are the
    document's, for mixtures and for perplexity by domain.
    """
    width = pa.uint16() if vocabulary_size <= 1 << 16 else pa.uint32()
    return pa.schema(
        [
            pa.field("doc_id", pa.string(), nullable=False),
            pa.field("tokens", pa.large_list(pa.field("item", width, nullable=False)), nullable=False),
            pa.field("text_bytes", pa.int64(), nullable=False),
            pa.field("source", pa.string(), nullable=False),
            pa.field("language", pa.string()),
            pa.field("bucket", pa.string()),
        ],
        metadata={
            "tokenizer_sha256": tokenizer_sha256,
            "vocabulary_size": str(vocabulary_size),
            "end_of_document": str(end_of_document),
        },
    )
