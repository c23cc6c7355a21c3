from workbench.sae.gemma_scope import load_sae as read_sae


def wanted_files(name):
    return True
