output "table" {
  description = "The table."
  value       = { name = aws_dynamodb_table.this.name, arn = aws_dynamodb_table.this.arn, stream_arn = aws_dynamodb_table.this.stream_arn }
}

output "bucket" {
  description = "The bucket."
  value       = { name = aws_s3_bucket.this.bucket, arn = aws_s3_bucket.this.arn }
}

output "lanes" {
  description = "The queues of hints, by lane and priority."
  value       = { for name, queue in aws_sqs_queue.hints : name => { name = queue.name, arn = queue.arn, url = queue.id } }
}

output "uploads" {
  description = "The queue of uploaded files."
  value       = { name = aws_sqs_queue.uploads.name, arn = aws_sqs_queue.uploads.arn, url = aws_sqs_queue.uploads.id }
}

output "dead" {
  description = "Where hints and records of the stream go that nobody could handle."
  value       = { name = aws_sqs_queue.dead["dead"].name, arn = aws_sqs_queue.dead["dead"].arn, url = aws_sqs_queue.dead["dead"].id }
}

output "uploads_dead" {
  description = "Where messages of uploaded files go that nobody could handle."
  value       = { name = aws_sqs_queue.dead["uploads-dead"].name, arn = aws_sqs_queue.dead["uploads-dead"].arn, url = aws_sqs_queue.dead["uploads-dead"].id }
}

output "settings" {
  description = "How the table is paid for, and whether its key is the customer's."
  value = {
    billing_mode = aws_dynamodb_table.this.billing_mode
    has_key      = length(aws_dynamodb_table.this.server_side_encryption) > 0 && var.kms_key_arn != null
  }
}

output "visibilities" {
  description = "For how long the queues hide a message that was received (s)."
  value = merge(
    { for name, queue in aws_sqs_queue.hints : name => queue.visibility_timeout_seconds },
    { uploads = aws_sqs_queue.uploads.visibility_timeout_seconds },
  )
}

output "expiries" {
  description = "After how many days objects go by themselves, by prefix."
  value       = { for rule in aws_s3_bucket_lifecycle_configuration.this.rule : rule.filter[0].prefix => rule.expiration[0].days if try(rule.expiration[0].days, 0) > 0 }
}
