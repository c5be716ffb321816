"""The fields of KubeRay's resources (``ray.io/v1``, KubeRay 1.7) and of a pod that the manifests use, as a JSON schema.

Every object is closed: a field that is misspelt, or that stands a level too high, is refused, as `kubectl apply` with
strict validation would. A field that a manifest begins to use is added here, from KubeRay's and Kubernetes' references.
``BABELRAY_KUBERAY_CRDS`` may name a directory with KubeRay's own CRD files, to which the test then holds the manifests.
"""

from typing import Any

TEXT: dict[str, Any] = {"type": "string", "minLength": 1}
NUMBER: dict[str, Any] = {"type": "integer", "minimum": 0}
FLAG: dict[str, Any] = {"type": "boolean"}
TEXTS: dict[str, Any] = {"type": "object", "additionalProperties": {"type": "string"}}
QUANTITY: dict[str, Any] = {"type": "string", "pattern": r"^\d+(m|Ki|Mi|Gi|Ti)?$"}
QUANTITIES: dict[str, Any] = {"type": "object", "additionalProperties": QUANTITY}


def choice(*values: str) -> dict[str, Any]:
    return {"enum": list(values)}


def array(of: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": of, "minItems": 1}


def closed(needed: str = "", **fields: dict[str, Any]) -> dict[str, Any]:
    """An object with these fields and no others; ``needed`` names those that must be there."""
    return {"type": "object", "properties": fields, "required": needed.split(), "additionalProperties": False}


PROBE = closed(
    "httpGet",
    httpGet=closed("path port", path=TEXT, port={"type": ["string", "integer"]}),
    initialDelaySeconds=NUMBER,
    periodSeconds=NUMBER,
    timeoutSeconds=NUMBER,
    failureThreshold=NUMBER,
)
CONTAINER = closed(
    "name image resources",
    name=TEXT,
    image=TEXT,
    resources=closed("requests limits", requests=QUANTITIES, limits=QUANTITIES),
    env=array(closed("name", name=TEXT, value={"type": "string"})),
    ports=array(closed("containerPort", containerPort=NUMBER, name={**TEXT, "maxLength": 15})),
    securityContext=closed(allowPrivilegeEscalation=FLAG, capabilities=closed(drop=array(TEXT), add=array(TEXT))),
    startupProbe=PROBE,
    livenessProbe=PROBE,
    readinessProbe=PROBE,
)
TERM = closed(
    "matchExpressions",
    matchExpressions=array(
        closed("key operator", key=TEXT, operator=choice("In", "NotIn", "Exists", "DoesNotExist"), values=array(TEXT))
    ),
)
POD = closed(
    "containers",
    containers=array(CONTAINER),
    serviceAccountName=TEXT,
    securityContext=closed(runAsNonRoot=FLAG, runAsUser=NUMBER, fsGroup=NUMBER),
    terminationGracePeriodSeconds=NUMBER,
    affinity=closed(
        nodeAffinity=closed(
            requiredDuringSchedulingIgnoredDuringExecution=closed("nodeSelectorTerms", nodeSelectorTerms=array(TERM))
        )
    ),
    tolerations=array(
        closed(key=TEXT, operator=choice("Equal", "Exists"), value=TEXT, effect=choice("NoSchedule", "NoExecute"))
    ),
    topologySpreadConstraints=array(
        closed(
            "maxSkew topologyKey whenUnsatisfiable",
            maxSkew={"type": "integer", "minimum": 1},
            topologyKey=TEXT,
            whenUnsatisfiable=choice("DoNotSchedule", "ScheduleAnyway"),
            labelSelector=closed(matchLabels=TEXTS),
        )
    ),
)
TEMPLATE = closed("spec", metadata=closed(labels=TEXTS, annotations=TEXTS), spec=POD)
CLUSTER = closed(
    "headGroupSpec rayVersion",
    rayVersion=TEXT,
    enableInTreeAutoscaling=FLAG,
    autoscalerOptions=closed(
        version=choice("v1", "v2"),
        idleTimeoutSeconds=NUMBER,
        upscalingMode=choice("Default", "Aggressive", "Conservative"),
    ),
    authOptions=closed("mode", mode=choice("disabled", "token")),
    upgradeStrategy=closed("type", type=choice("Recreate", "None")),
    headGroupSpec=closed("template", rayStartParams=TEXTS, template=TEMPLATE, serviceType=TEXT),
    workerGroupSpecs=array(
        closed(
            "groupName minReplicas maxReplicas template",
            groupName=TEXT,
            replicas=NUMBER,
            minReplicas=NUMBER,
            maxReplicas=NUMBER,
            priority=NUMBER,
            rayStartParams=TEXTS,
            template=TEMPLATE,
        )
    ),
)
JOB = closed(
    "entrypoint rayClusterSpec",
    entrypoint=TEXT,
    submissionMode=choice("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"),
    backoffLimit=NUMBER,
    activeDeadlineSeconds=NUMBER,
    shutdownAfterJobFinishes=FLAG,
    ttlSecondsAfterFinished=NUMBER,
    rayClusterSpec=CLUSTER,
)
SERVICE = closed(
    "serveConfigV2 rayClusterConfig",
    serveConfigV2=TEXT,
    upgradeStrategy=closed("type", type=choice("NewCluster", "None")),
    rayClusterDeletionDelaySeconds=NUMBER,
    excludeHeadPodFromServeSvc=FLAG,
    rayClusterConfig=CLUSTER,
)
SPECS = {"RayCluster": CLUSTER, "RayJob": JOB, "RayService": SERVICE}
METADATA = closed("name", name={**TEXT, "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "maxLength": 47}, labels=TEXTS)


def resource_schema(kind: str) -> dict[str, Any]:
    """The schema of a resource: its envelope and its spec."""
    envelope = {"apiVersion": choice("ray.io/v1"), "kind": choice(kind), "metadata": METADATA}
    return closed("apiVersion kind metadata spec", **envelope, spec=SPECS[kind])
