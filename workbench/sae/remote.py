class RemoteSAE:
    pass
