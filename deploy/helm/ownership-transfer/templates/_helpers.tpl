{{- define "ownership.labels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Values.image.tag | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- /* What every process of the job reads. A key of the Secret of the same name wins. */ -}}
{{- define "ownership.environment" -}}
{{- with .Values.global -}}
AIRFLOW_CONN_KAFKA_DEFAULT: {{ dict "conn_type" "kafka" "extra" (dict "bootstrap.servers" (printf "%s:%v" .kafka.host .kafka.port) "enable.auto.commit" "false") | toJson | quote }}
AIRFLOW_CONN_CASSANDRA_DEFAULT: {{ dict "conn_type" "cassandra" "host" .cassandra.host "port" (int .cassandra.port) | toJson | quote }}
AIRFLOW_CONN_ELASTICSEARCH_DEFAULT: {{ dict "conn_type" "elasticsearch" "host" .elasticsearch.host "port" (int .elasticsearch.port) "schema" "http" | toJson | quote }}
{{- end }}
AIRFLOW_CONN_LMS_DEFAULT: {{ dict "conn_type" "http" "host" .Values.services.lms | toJson | quote }}
AIRFLOW_CONN_USERORG_DEFAULT: {{ dict "conn_type" "http" "host" .Values.services.userorg | toJson | quote }}
{{- with .Values.services.contentSearch }}
AIRFLOW_CONN_CONTENT_SEARCH_DEFAULT: {{ dict "conn_type" "http" "host" . | toJson | quote }}
{{- end }}
AIRFLOW_VAR_USER_OWNERSHIP_TRANSFER: {{ merge (dict "env" .Values.global.env) .Values.settings | toJson | quote }}
{{- end }}

{{- define "ownership.container" -}}
image: "{{ .Values.image.repository }}:{{ .Values.image.tag }}"
imagePullPolicy: {{ .Values.image.pullPolicy }}
envFrom:
  - configMapRef: {name: {{ .Release.Name }}}
  - secretRef: {name: {{ .Values.connectionsSecret }}}
securityContext:
  allowPrivilegeEscalation: false
  capabilities: {drop: [ALL]}
resources: {{- toYaml .Values.resources | nindent 2 }}
{{- end }}
