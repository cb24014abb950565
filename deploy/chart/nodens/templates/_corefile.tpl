{{/*
The Corefile: the root zone as in ack-node-local-dns 1.3.2, then the zones of the values, then what the operator wrote.
The agent fills in __PILLAR__CLUSTER__DNS__ from the environment that Kubernetes gives it for the Service node-local-upstream.
*/}}
{{- define "nodens.corefile" -}}
{{- $agent := .Values.nodelocaldns -}}
{{- if $agent.corefile -}}
{{ $agent.corefile | trim }}
{{- else -}}
{{- $upstream := .Values.env.upstream_ip | default "__PILLAR__CLUSTER__DNS__" -}}
{{- $first := index $agent.local_ips 0 -}}
.:53 {
{{- include "nodens.zone" (dict "root" . "zone" dict "upstreams" (list $upstream)) | nindent 4 }}
    prometheus {{ $agent.metrics.address }}
    health {{ include "nodens.socket" (list $first $agent.health_port) }}
    ready {{ include "nodens.socket" (list $first $agent.ready_port) }}
{{- if ne $agent.cache.bytes "" }}
    nodens {
        cache_bytes {{ $agent.cache.bytes }}
    }
{{- end }}
}
{{- range $agent.zones }}
{{ .zone }}:53 {
{{- include "nodens.zone" (dict "root" $ "zone" . "upstreams" (.upstreams | default (list $upstream))) | nindent 4 }}
}
{{- end }}
{{- with $agent.extra_corefile | trim }}
{{ . }}
{{- end }}
{{- end -}}
{{- end -}}

{{/* What every server block has. */}}
{{- define "nodens.zone" -}}
{{- $agent := .root.Values.nodelocaldns -}}
{{- $protocol := .zone.protocol | default $agent.forward.protocol -}}
errors
cache {
    success {{ int $agent.cache.success.capacity }} {{ .zone.success_ttl | default $agent.cache.success.ttl | int }}
    denial {{ int $agent.cache.denial.capacity }} {{ .zone.denial_ttl | default $agent.cache.denial.ttl | int }}
{{- with $agent.serve_stale }}
{{- if .enabled }}
    serve_stale {{ .duration }} verify {{ .verify }}
{{- end }}
{{- end }}
}
{{- if .root.Values.env.enable_log }}
log
{{- end }}
reload
loop
bind {{ join " " $agent.local_ips }}
forward . {{ join " " .upstreams }}
{{- $limit := int $agent.forward.max_concurrent }}
{{- if or (ne $protocol "as_client") $limit }} {
{{- if ne $protocol "as_client" }}
    {{ $protocol }}
{{- end }}
{{- if $limit }}
    max_concurrent {{ $limit }}
{{- end }}
}
{{- end }}
{{- end -}}
