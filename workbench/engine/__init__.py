"""The engine: edits as values, and the traced runs that apply them.

`edits` says what to do, `program` and `binding` turn a list of edits into arrays for a batch,
`surgeon` applies them at each site of a forward pass, `receipts` counts what they did, `writing`
chooses tokens, and `tracing` runs it all inside nnsight.
"""
