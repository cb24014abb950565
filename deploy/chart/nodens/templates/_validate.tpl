{{/* Refusals that a schema cannot put into a sentence. Each says what is wrong, and what would be right. */}}
{{- define "nodens.validate" -}}
{{- $env := .Values.env -}}
{{- $agent := .Values.nodelocaldns -}}
{{- $controller := .Values.controller -}}
{{- $injection := $controller.injection -}}
{{- range list "local_dns_ip" "high_availability" -}}
{{- if or (hasKey $env .) (hasKey $agent .) (hasKey $controller .) (hasKey $.Values .) -}}
{{- fail (printf "%s belongs to versions of ack-node-local-dns before 1.3. An installation with it is not upgraded in place: see docs/migrate-from-ack.md for the way, then remove it. The address is nodelocaldns.local_ips now, and kube-dns always stands behind it." .) -}}
{{- end -}}
{{- end -}}
{{- if and $env.require_upstream_ip (not $env.upstream_ip) -}}
{{- fail "env.upstream_ip is empty, and env.require_upstream_ip asks for it. Write a free address of the cluster's Service range: --set env.upstream_ip=172.21.0.20" -}}
{{- end -}}
{{- with $env.upstream_ip -}}
{{- include "nodens.checkAddress" (list "env.upstream_ip" . "a free address of the cluster's Service range, for example 172.21.0.20, or nothing: then the API server picks one") -}}
{{- if has . $agent.local_ips -}}
{{- fail (printf "env.upstream_ip and nodelocaldns.local_ips are both %s: agents would ask themselves. env.upstream_ip is a free address of the cluster's Service range." .) -}}
{{- end -}}
{{- $service := lookup "v1" "Service" $.Release.Namespace "node-local-upstream" -}}
{{- if and $service (ne $service.spec.clusterIP .) -}}
{{- fail (printf "Service node-local-upstream has the address %s, and Kubernetes lets nobody change it to %s. Keep env.upstream_ip=%s, or delete the Service first (docs/troubleshooting.md)." $service.spec.clusterIP . $service.spec.clusterIP) -}}
{{- end -}}
{{- end -}}
{{- if not (regexMatch "^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$" $env.cluster_domain) -}}
{{- fail (printf "env.cluster_domain %q is no domain. Write it in lower case without a final dot, for example cluster.local." $env.cluster_domain) -}}
{{- end -}}
{{- $families := list -}}
{{- range $agent.local_ips -}}
{{- include "nodens.checkAddress" (list "nodelocaldns.local_ips" . "addresses, for example 169.254.20.10 and fd00:d5::10") -}}
{{- if hasPrefix "fe80:" (lower .) -}}
{{- fail (printf "nodelocaldns.local_ips: %s needs a zone, which Pods cannot have. Take a unique local address, for example fd00:d5::10." .) -}}
{{- end -}}
{{- $families = append $families (contains ":" .) -}}
{{- end -}}
{{- if ne (len $families) (len (uniq $families)) -}}
{{- fail "nodelocaldns.local_ips has two addresses of one family. Keep one of each." -}}
{{- end -}}
{{- if and $agent.corefile (or $agent.zones $agent.extra_corefile) -}}
{{- fail "nodelocaldns.corefile replaces the whole Corefile: put what nodelocaldns.zones and nodelocaldns.extra_corefile say into it, and empty them." -}}
{{- end -}}
{{- $certificate := $controller.certificate -}}
{{- if and $controller.enabled (eq $certificate.mode "secret") (not (and $certificate.secretName $certificate.caBundle)) -}}
{{- fail "controller.certificate.mode is secret: name it in controller.certificate.secretName, and put the authority that signed it into controller.certificate.caBundle (base64 of PEM)." -}}
{{- end -}}
{{- if and $controller.enabled (eq $controller.mode "policy") (semverCompare "<1.36.0-0" .Capabilities.KubeVersion.Version) -}}
{{- fail (printf "controller.mode policy needs Kubernetes 1.36 or later; this is %s. Take webhook, or auto." .Capabilities.KubeVersion.Version) -}}
{{- end -}}
{{- if eq (include "nodens.mode" .) "policy" -}}
{{- $wrong := list -}}
{{- if $injection.podOptIn }}{{ $wrong = append $wrong "podOptIn" }}{{ end -}}
{{- if $injection.reportOnly }}{{ $wrong = append $wrong "reportOnly" }}{{ end -}}
{{- if $injection.lenientHostNetwork }}{{ $wrong = append $wrong "lenientHostNetwork" }}{{ end -}}
{{- if ne (int $injection.rolloutPercent) 100 }}{{ $wrong = append $wrong "rolloutPercent" }}{{ end -}}
{{- if ne $injection.marker "annotation" }}{{ $wrong = append $wrong "marker" }}{{ end -}}
{{- if ne $injection.virtualNodePolicy "skip" }}{{ $wrong = append $wrong "virtualNodePolicy" }}{{ end -}}
{{- if not $controller.kubeDNS.include }}{{ $wrong = append $wrong "kubeDNS.include" }}{{ end -}}
{{- if $wrong -}}
{{- fail (printf "The policy of this chart cannot carry out %s. Take controller.mode webhook, or make a policy of your own with `nodens-admission policy` and set controller.enabled to false." (join ", " $wrong)) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Refuses what is no address. Call with (list key value "what would be right"). Kubernetes takes canonical ones only, the API server judges the rest. */}}
{{- define "nodens.checkAddress" -}}
{{- $ip := index . 1 -}}
{{- $octet := "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])" -}}
{{- $v4 := regexMatch (printf "^(%s\\.){3}%s$" $octet $octet) $ip -}}
{{- $v6 := and (regexMatch "^[0-9a-fA-F:]+$" $ip) (regexMatch ":.*:" $ip) (not (regexMatch ":::|::.*::|[0-9a-fA-F]{5}" $ip)) -}}
{{- if not (or $v4 $v6) -}}
{{- fail (printf "%s: %q is no IP address. Write %s." (index . 0) $ip (index . 2)) -}}
{{- end -}}
{{- end -}}
