{{/* Names and pieces that several templates share. The names are those of ack-node-local-dns 1.3.2. */}}

{{- define "nodens.admission" -}}
{{- printf "%s-admission-controller" .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* Labels of every object. Call with (list $ "component"). Selectors use none of them. */}}
{{- define "nodens.labels" -}}
{{- $ := index . 0 -}}
app.kubernetes.io/name: nodens
app.kubernetes.io/instance: {{ $.Release.Name }}
app.kubernetes.io/version: {{ $.Chart.AppVersion | quote }}
app.kubernetes.io/component: {{ index . 1 }}
app.kubernetes.io/part-of: nodens
app.kubernetes.io/managed-by: {{ $.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $.Chart.Name $.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end -}}

{{/* Labels of Pods: those that stay the same from version to version, since a change of them restarts every Pod. */}}
{{- define "nodens.podLabels" -}}
{{- $ := index . 0 -}}
app.kubernetes.io/name: nodens
app.kubernetes.io/instance: {{ $.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
app.kubernetes.io/part-of: nodens
{{- end -}}

{{- define "nodens.controllerLabels" -}}
app: {{ include "nodens.admission" . }}
{{ include "nodens.labels" (list . "admission") }}
{{- end -}}

{{- define "nodens.agentLabels" -}}
k8s-app: node-local-dns
kubernetes.io/cluster-service: "true"
{{ include "nodens.labels" (list . "agent") }}
{{- end -}}

{{- define "nodens.agentImage" -}}
{{- with .Values.nodelocaldns.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end -}}
{{- end -}}

{{- define "nodens.controllerImage" -}}
{{- with .Values.controller -}}
{{ .image }}{{ if .imageDigest }}@{{ .imageDigest }}{{ else }}:{{ .imageTag | default $.Chart.AppVersion }}{{ end }}
{{- end -}}
{{- end -}}

{{/* `webhook`, `policy`, or nothing. */}}
{{- define "nodens.mode" -}}
{{- if .Values.controller.enabled -}}
{{- if ne .Values.controller.mode "auto" -}}
{{ .Values.controller.mode }}
{{- else if .Capabilities.APIVersions.Has "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy" -}}
policy
{{- else -}}
webhook
{{- end -}}
{{- end -}}
{{- end -}}

{{/* An address and a port in one word. Call with (list address port). */}}
{{- define "nodens.socket" -}}
{{- $ip := index . 0 -}}
{{- if contains ":" $ip }}[{{ $ip }}]{{ else }}{{ $ip }}{{ end }}:{{ index . 1 }}
{{- end -}}

{{/* The port of an address such as `:9253` or `[::1]:9253`. */}}
{{- define "nodens.port" -}}
{{- regexFind "[0-9]+$" . -}}
{{- end -}}

{{/* Namespaces that never get injection, as a JSON list. */}}
{{- define "nodens.exempt" -}}
{{- $all := concat (list "kube-system" "kube-public" .Release.Namespace) .Values.controller.injection.exemptNamespaces -}}
{{- $all | uniq | toJson -}}
{{- end -}}

{{/* Label selector: none of these keys. */}}
{{- define "nodens.absent" -}}
{{- range $i, $key := . -}}
{{- if $i }}{{ "\n" }}{{ end -}}
- key: {{ $key }}
  operator: DoesNotExist
{{- end -}}
{{- end -}}

{{/* Namespaces whose Pods are looked at. */}}
{{- define "nodens.namespaceExpressions" -}}
- key: node-local-dns-injection
{{- if eq .Values.controller.injection.default "enabled" }}
  operator: NotIn
  values: [disabled]
{{- else }}
  operator: In
  values: [enabled]
{{- end }}
{{ include "nodens.exemptExpressions" . }}
{{- end -}}

{{- define "nodens.exemptExpressions" -}}
{{ include "nodens.absent" (concat (list "virtual-node-affinity-injection" "eci" "alibabacloud.com/eci") .Values.controller.injection.virtualNodeKeys) }}
- key: kubernetes.io/metadata.name
  operator: NotIn
  values: {{ include "nodens.exempt" . }}
{{- end -}}

{{/* What the admission server and its commands need to know about injection, as flags. */}}
{{- define "nodens.injectionArgs" -}}
- --nameserver={{ join "," .Values.nodelocaldns.local_ips }}
- --cluster-domain={{ .Values.env.cluster_domain }}
{{- with .Values.env.extra_searches }}
- --extra-searches={{ join "," . }}
{{- end }}
{{- with .Values.controller }}
- --ndots={{ .ndots }}
- --attempts={{ .attempts }}
- --timeout={{ .timeout }}
- --include-kube-dns={{ .kubeDNS.include }}
{{- range .kubeDNS.clusterIPs }}
- --kube-dns-ip={{ . }}
{{- end }}
- --kube-dns-service={{ .kubeDNS.service }}
{{- with .injection }}
- --merge={{ .merge }}
- --dual-stack={{ .dualStack }}
- --marker={{ .marker }}
- --virtual-node-soft-policy={{ .virtualNodePolicy }}
{{- with .virtualNodeKeys }}
- --virtual-node-keys={{ join "," . }}
{{- end }}
{{- with .exemptNamespaces }}
- --exempt-namespaces={{ join "," . }}
{{- end }}
{{- if .lenientHostNetwork }}
- --lenient-host-net-policy
{{- end }}
{{- if eq .default "enabled" }}
- --default-enabled
{{- end }}
{{- if .podOptIn }}
- --pod-opt-in
{{- end }}
{{- if .reportOnly }}
- --report-only
{{- end }}
{{- if ne (int .rolloutPercent) 100 }}
- --rollout-percent={{ .rolloutPercent }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Least privilege of the admission server and of the Jobs that run its image. */}}
{{- define "nodens.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
capabilities:
  drop: [ALL]
seccompProfile:
  type: RuntimeDefault
{{- end -}}
