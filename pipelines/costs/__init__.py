"""What a recipe will take before it is run: rows, tokens, hours, storage, requests and money.

    sizes        how many rows a source has, and how long its texts are
    quantities   what each step of a plan handles
    parameters   how many parameters of a model compute
    operations   floating point operations of a step
    rates        seconds per unit of a step: of a run, of a calibration, or estimated
    sample       a calibration: the same recipe on a few hundred rows
    cluster      which machines there are; prices, what they cost
    gpu_memory   memory of a GPU that a worker takes
    estimate     the order of the steps on the cluster, and its cost
    page, verb   what the command line shows

Every number says where it comes from. Nothing is started but by a calibration.
"""
