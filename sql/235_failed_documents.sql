-- What could not be ingested, and why.

CREATE OR REPLACE VIEW pgvec.failed_documents WITH (security_invoker = true) AS
SELECT c.name AS collection, f.document_id, f.stage, f.error, f.attempts, f.source,
       f.payload IS NOT NULL OR f.source IS NOT NULL AS retriable, f.first_at, f.last_at
FROM pgvec.failures f JOIN pgvec.collections c ON c.id = f.collection_id;
COMMENT ON VIEW pgvec.failed_documents IS
'Documents that could not be ingested: at which stage, why, how often; retriable are those of files and those that were kept.
Example: SELECT document_id, error FROM pgvec.failed_documents WHERE collection = ''docs'' ORDER BY last_at';
