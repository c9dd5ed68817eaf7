"""
Payment providers: what the house asks of them (`port`), one adapter that asks over HTTP (`http`), how anybody is asked over HTTP
(`posting`), how both sides sign what they say (`signing`), and who they are (`known`). What they say by themselves comes in
through app/callbacks.py.

Invariants:
    - nothing here knows the log or decides anything: an answer is evidence, and a command says what follows from it;
    - an answer that is not signed, or does not speak of what was asked, is no answer.
"""
