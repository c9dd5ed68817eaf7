"""Tampers with logs in every way that somebody with all rights over the storage could, and has the verifier find it."""
