"""
National registers of those who are excluded from gambling: what the house asks of them (`port`), one adapter that asks over HTTP
(`http`), one that spares whoever waits a register that does not answer (`breaker`, by `circuit`), and which of them this house was told of
(`known`).

Invariants:
    - nothing here knows the log or decides anything: an answer is evidence, and a command says what follows from it;
    - an answer that is not signed, or does not speak of what was asked, is no answer; and no answer is never «clear».
"""
