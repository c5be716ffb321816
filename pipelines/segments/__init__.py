"""An index that grows and forgets: segments beside an index artifact, and lists of what counts.

The artifact ``<root>/<index step>@<fingerprint>/`` never changes. What comes later stands beside it:

    <same name>.live/segments/<id>/         an index directory of the same form, built under the artifact's codec, and
                                            docs/<lang>/, the DOCS of its documents
    <same name>.live/tombstones/<id>.parquet  ids that are deleted from one segment, or replaced by a later one
    <same name>.live/lists/<number>.json    which segments count, the first of them the artifact, and their tombstones

The list of the highest number is the state. A list is created only where none of its number is, whole, after all that
it names; who loses a number to another writer reads the newest list and begins again. So a reader has one list or the
next and never a mixture, and a writer that is killed has changed nothing. Ids begin with the number of the first list
that may name them: when that list is there and does not, they are leftovers of a writer that lost or was killed, and
the next writer removes them.

    lists      the lists: the newest, committing one, what is left over
    snapshot   an index as one list has it: shards, tombstones, texts
    parts      the parts in which a server searches it
    documents  files of documents, as they are given to ``add``
    build      a segment of new documents, or of all that are not deleted
    drift      how far new vectors lie from the codec's cells
    growing    add, delete, compact
    verbs      the same for recipes
    commands   the same on the command line
"""
