{{/* The name of the Deployment, ServiceAccount and budget. */}}
{{- define "kube-dns.name" -}}
{{- $names := dict "new" "kube-dns" "in-place" "kubedns" "beside" "kube-dns-beside" -}}
{{- default (get $names .Values.install) .Values.deployment.name -}}
{{- end -}}

{{- define "kube-dns.account" -}}
{{- default (include "kube-dns.name" .) .Values.serviceAccount.name -}}
{{- end -}}

{{/* The name of the rights, and the beginning of that of the metrics' Service. */}}
{{- define "kube-dns.role" -}}
kubedns{{ if eq .Values.install "beside" }}-beside{{ end }}
{{- end -}}

{{- define "kube-dns.metrics" -}}
kubedns-metrics{{ if eq .Values.install "beside" }}-beside{{ end }}
{{- end -}}

{{- define "kube-dns.service" -}}
{{- default (include "kube-dns.app" .) .Values.service.name -}}
{{- end -}}

{{/* The label k8s-app of pods: what the Service selects. */}}
{{- define "kube-dns.app" -}}
kube-dns{{ if eq .Values.install "beside" }}-beside{{ end }}
{{- end -}}

{{/* The label k8s-app of objects. In place it is another: `kubeadm upgrade` refuses a cluster with
two Deployments that have the same. */}}
{{- define "kube-dns.labels" -}}
{{- if eq .Values.install "in-place" -}}
k8s-app: kubedns
{{- else -}}
k8s-app: {{ include "kube-dns.app" . }}
{{- end -}}
{{- with .Values.customLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "kube-dns.selector" -}}
k8s-app: {{ include "kube-dns.app" . }}
{{- if eq .Values.install "in-place" }}
app.kubernetes.io/name: kubedns
{{- end }}
{{- end -}}

{{/* What selects pods of this release alone, also in place. */}}
{{- define "kube-dns.own" -}}
{{- if eq .Values.install "in-place" -}}
app.kubernetes.io/name: kubedns
{{- else -}}
k8s-app: {{ include "kube-dns.app" . }}
{{- end -}}
{{- end -}}

{{- define "kube-dns.annotations" -}}
{{- with .Values.customAnnotations }}
annotations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Takes a list of the root and the name of a program. */}}
{{- define "kube-dns.container" -}}
{{- $root := index . 0 -}}
{{- $name := index . 1 -}}
{{- $tag := default $root.Chart.AppVersion $root.Values.image.tag -}}
name: {{ $name }}
image: {{ $root.Values.image.registry }}{{ $name }}:{{ $tag }}
imagePullPolicy: {{ $root.Values.image.pullPolicy }}
{{- with $root.Values.env }}
env: {{ toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "kube-dns.security" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* Liveness is each program's own; readiness is at the path that is given. Takes the path and the
name of the port. */}}
{{- define "kube-dns.probes" -}}
readinessProbe:
  httpGet: {path: {{ index . 0 }}, port: {{ index . 1 }}}
  periodSeconds: 5
  timeoutSeconds: 5
livenessProbe:
  httpGet: {path: /livez, port: {{ index . 1 }}}
  initialDelaySeconds: 30
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 5
{{- end -}}

{{/* The text of a Corefile. A port is written after the last zone of a block, as the coredns chart
does it. */}}
{{- define "kube-dns.corefile" -}}
{{- range $name, $config := .Values.extraConfig }}
{{ $name }} {{ $config.parameters }}
{{- end }}
{{- range .Values.servers }}
{{- $zones := list }}
{{- range .zones }}
{{- $zones = append $zones (printf "%s%s" (default "" .scheme) (default "." .zone)) }}
{{- end }}
{{ join " " (default (list ".") $zones) }}{{ with .port }}:{{ . }}{{ end }} {
{{- range .plugins }}
    {{ .name }}
    {{- if not (kindIs "invalid" .parameters) }} {{ .parameters }}{{ end }}
    {{- with .configBlock }} {
{{ . | indent 8 }}
    }
    {{- end }}
{{- end }}
}
{{- end }}
{{- end -}}

{{/* Where the configuration is mounted, and the flag that names it. */}}
{{- define "kube-dns.mount" -}}
{{ if .Values.servers }}/etc/coredns{{ else }}/etc/kube-dns{{ end }}
{{- end -}}

{{- define "kube-dns.config" -}}
{{- if .Values.servers -}}
--corefile=/etc/coredns/Corefile
{{- else -}}
--config-dir=/etc/kube-dns
{{- end -}}
{{- end -}}
