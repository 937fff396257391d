"""Wire table: transport sockets and secrets.

The notation is explained in `meshlib.xds.schema.pool`.
"""

__all__ = ["TLS"]

TLS = """
package envoy.extensions.transport_sockets.tls.v3

message UpstreamTlsContext
   1 common_tls_context      CommonTlsContext
   2 sni                     string
   6 auto_host_sni           bool
   7 auto_sni_san_validation bool
   3 allow_renegotiation     bool
   4 max_session_keys        pb.UInt32Value
   5 enforce_rsa_key_usage   pb.BoolValue

message CommonTlsContext
   1 tls_params                                       TlsParameters
   2 tls_certificates                                 [TlsCertificate]
   6 tls_certificate_sds_secret_configs               [SdsSecretConfig]
  14 tls_certificate_provider_instance                CertificateProviderPluginInstance
  16 custom_tls_certificate_selector                  core.TypedExtensionConfig
   9 tls_certificate_certificate_provider             opaque
  11 tls_certificate_certificate_provider_instance    .CertificateProviderInstance
   3 validation_context                               CertificateValidationContext @validation_context_type
   7 validation_context_sds_secret_config             SdsSecretConfig @validation_context_type
   8 combined_validation_context                      .CombinedCertificateValidationContext @validation_context_type
  10 validation_context_certificate_provider          opaque @validation_context_type
  12 validation_context_certificate_provider_instance .CertificateProviderInstance @validation_context_type
   4 alpn_protocols                                   [string]
  13 custom_handshaker                                core.TypedExtensionConfig
  15 key_log                                          opaque

message CommonTlsContext.CombinedCertificateValidationContext
   1 default_validation_context                       CertificateValidationContext
   2 validation_context_sds_secret_config             SdsSecretConfig
   3 validation_context_certificate_provider          opaque
   4 validation_context_certificate_provider_instance CommonTlsContext.CertificateProviderInstance

message CommonTlsContext.CertificateProviderInstance
   1 instance_name    string
   2 certificate_name string

message CertificateProviderPluginInstance
   1 instance_name    string
   2 certificate_name string

message TlsParameters
   1 tls_minimum_protocol_version .TlsProtocol
   2 tls_maximum_protocol_version .TlsProtocol
   3 cipher_suites                [string]
   4 ecdh_curves                  [string]
   5 signature_algorithms         [string]
   6 compliance_policies          [.CompliancePolicy]
  enum TlsProtocol TLS_AUTO=0 TLSv1_0=1 TLSv1_1=2 TLSv1_2=3 TLSv1_3=4
  enum CompliancePolicy FIPS_202205=0

message TlsCertificate
   1 certificate_chain            core.DataSource
   2 private_key                  core.DataSource
   8 pkcs12                       core.DataSource
   7 watched_directory            core.WatchedDirectory
   6 private_key_provider         opaque
   3 password                     core.DataSource
   4 ocsp_staple                  core.DataSource
   5 signed_certificate_timestamp [core.DataSource]

message CertificateValidationContext
   1 trusted_ca                           core.DataSource
  13 ca_certificate_provider_instance     CertificateProviderPluginInstance
  17 system_root_certs                    .SystemRootCerts
  11 watched_directory                    core.WatchedDirectory
   3 verify_certificate_spki              [string]
   2 verify_certificate_hash              [string]
  15 match_typed_subject_alt_names        [SubjectAltNameMatcher]
   9 match_subject_alt_names              [matcher.StringMatcher]
   6 require_signed_certificate_timestamp pb.BoolValue
   7 crl                                  core.DataSource
   8 allow_expired_certificate            bool
  10 trust_chain_verification             .TrustChainVerification
  12 custom_validator_config              core.TypedExtensionConfig
  14 only_verify_leaf_cert_crl            bool
  16 max_verify_depth                     pb.UInt32Value
  enum TrustChainVerification VERIFY_TRUST_CHAIN=0 ACCEPT_UNTRUSTED=1

message CertificateValidationContext.SystemRootCerts

message SubjectAltNameMatcher
   1 san_type .SanType
   2 matcher  matcher.StringMatcher
   3 oid      string
  enum SanType SAN_TYPE_UNSPECIFIED=0 EMAIL=1 DNS=2 URI=3 IP_ADDRESS=4 OTHER_NAME=5

message SPIFFECertValidatorConfig
   1 trust_domains [.TrustDomain]
   2 trust_bundles core.DataSource

message SPIFFECertValidatorConfig.TrustDomain
   1 name         string
   2 trust_bundle core.DataSource

message SdsSecretConfig
   1 name       string
   2 sds_config core.ConfigSource

message Secret
   1 name                string
   2 tls_certificate     TlsCertificate @type
   3 session_ticket_keys opaque @type
   4 validation_context  CertificateValidationContext @type
   5 generic_secret      opaque @type

package envoy.extensions.transport_sockets.raw_buffer.v3

message RawBuffer

package envoy.extensions.transport_sockets.http_11_proxy.v3

message Http11ProxyUpstreamTransport
   1 transport_socket      core.TransportSocket
   2 default_proxy_address core.Address
"""
