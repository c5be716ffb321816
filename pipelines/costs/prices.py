"""What machines can do and what they cost: AWS instance types, GPUs, the object store.

Prices are list prices on demand, Linux, us-east-1, in dollars per hour, noted in July 2025. They change and differ by
region: ``--price TYPE=DOLLARS`` replaces one. Peaks are those of the vendors' data sheets, dense, without sparsity.
"""

from dataclasses import dataclass

NOTED = "July 2025"
REGION = "us-east-1"
SPOT = 0.35  # of the price on demand, where nothing else is said
RAY_MEMORY = 0.7  # share of a node's memory that Ray hands out to actors


@dataclass(frozen=True)
class Instance:
    """An instance type: vCPUs, GiB of memory, GPUs and their kind, dollars per hour (None: not known), and the network
    that it has for hours, not for minutes, in Gbit/s (AWS: baseline)."""

    cpus: float
    memory_gb: float
    gpus: int = 0
    gpu: str = ""
    price: float | None = None
    gbps: float = 10.0


@dataclass(frozen=True)
class Gpu:
    """Operations per second of a GPU's tensor cores in fp16 or bf16, and in fp32 without them; its memory, of the
    smallest where it is made with several; bytes per second at which the GPUs of one machine add up their gradients (an
    assumption: what NCCL reaches over PCIe, or NVLink)."""

    half: float
    single: float
    memory_gb: float
    link: float = 10e9


GPUS = {
    "T4": Gpu(65e12, 8.1e12, 16),
    "V100": Gpu(125e12, 15.7e12, 16, 130e9),
    "A10G": Gpu(70e12, 31.5e12, 24),
    "L4": Gpu(121e12, 30.3e12, 24),
    "L40S": Gpu(362e12, 91.6e12, 48),
    "A100": Gpu(312e12, 19.5e12, 40, 230e9),
    "H100": Gpu(989e12, 67e12, 80, 370e9),
    "H200": Gpu(989e12, 67e12, 141, 370e9),
}
# A vCPU is a thread of a core with two units of 16 lanes (AVX-512), 2 operations a lane, at 2.5 GHz, shared by two
VCPU_PEAK = 2 * 16 * 2 * 2.5e9 / 2

INSTANCES = {
    "m7i.large": Instance(2, 8, price=0.1008),
    "m7i.xlarge": Instance(4, 16, price=0.2016),
    "m7i.2xlarge": Instance(8, 32, price=0.4032),
    "m7i.4xlarge": Instance(16, 64, price=0.8064),
    "m7i.8xlarge": Instance(32, 128, price=1.6128),
    "m7i.12xlarge": Instance(48, 192, price=2.4192),
    "m7i.16xlarge": Instance(64, 256, price=3.2256),
    "m7i.24xlarge": Instance(96, 384, price=4.8384),
    "m7i.48xlarge": Instance(192, 768, price=9.6768),
    "g5.xlarge": Instance(4, 16, 1, "A10G", 1.006, 2.5),
    "g5.2xlarge": Instance(8, 32, 1, "A10G", 1.212, 5),
    "g5.4xlarge": Instance(16, 64, 1, "A10G", 1.624, 10),
    "g5.8xlarge": Instance(32, 128, 1, "A10G", 2.448, 25),
    "g5.12xlarge": Instance(48, 192, 4, "A10G", 5.672, 40),
    "g5.48xlarge": Instance(192, 768, 8, "A10G", 16.288, 100),
    "g6.xlarge": Instance(4, 16, 1, "L4", 0.8048, 2.5),
    "g6.2xlarge": Instance(8, 32, 1, "L4", 0.9776, 5),
    "g6.4xlarge": Instance(16, 64, 1, "L4", 1.3232, 10),
    "g6.8xlarge": Instance(32, 128, 1, "L4", 2.0144, 25),
    "g6.12xlarge": Instance(48, 192, 4, "L4", 4.6016, 40),
    "g6.48xlarge": Instance(192, 768, 8, "L4", 13.3504, 100),
    "g6e.xlarge": Instance(4, 32, 1, "L40S", 1.861, 2.5),
    "g6e.2xlarge": Instance(8, 64, 1, "L40S", 2.24208, 5),
    "g6e.4xlarge": Instance(16, 128, 1, "L40S", 3.00424, 10),
    "g6e.8xlarge": Instance(32, 256, 1, "L40S", 4.52856, 25),
    "g6e.12xlarge": Instance(48, 384, 4, "L40S", 10.49264, 100),
    "g6e.48xlarge": Instance(192, 1536, 8, "L40S", 30.13118, 400),
    "p4d.24xlarge": Instance(96, 1152, 8, "A100", 21.9576, 400),
    "p5.48xlarge": Instance(192, 2048, 8, "H100", 55.04, 3200),
}

# Amazon S3, standard class
PUT_PRICE = 0.005 / 1000
GET_PRICE = 0.0004 / 1000
GB_MONTH = 0.023
