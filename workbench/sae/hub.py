def cached(repo, path):
    return None


def fetch(*a, **k):
    raise OSError
