# Hints: a queue per lane and priority. They are never the truth: the sweeper finds what a lost one meant.

locals {
  lanes      = ["lambda", "spot", "on-demand"]
  priorities = ["high", "normal", "low"]
  hints = merge([for lane in local.lanes : {
    for priority in local.priorities : "${lane}-${priority}" => {
      # A Lambda's message must stay hidden for as long as it may run; a container asks for more time as it needs it. 70 s is
      # schema::VISIBILITY_S.
      visibility_s = lane == "lambda" ? max(70, var.timeouts.dispatch + 60) : 70
    }
  }]...)
}

resource "aws_sqs_queue" "dead" {
  for_each = toset(["dead", "uploads-dead"])

  name                      = "${var.grid}-${each.key}"
  message_retention_seconds = 14 * 24 * 3600
  sqs_managed_sse_enabled   = true
}

resource "aws_sqs_queue" "hints" {
  for_each = local.hints

  name                       = "${var.grid}-${each.key}"
  visibility_timeout_seconds = each.value.visibility_s
  receive_wait_time_seconds  = 20
  sqs_managed_sse_enabled    = true
  # A hint of a chunk that another holds is received again and again until that lease could lapse, which is no fault.
  redrive_policy = jsonencode({ deadLetterTargetArn = aws_sqs_queue.dead["dead"].arn, maxReceiveCount = 1000 })
}

resource "aws_sqs_queue" "uploads" {
  name                       = "${var.grid}-uploads"
  visibility_timeout_seconds = var.timeouts.upload + 60
  receive_wait_time_seconds  = 20
  message_retention_seconds  = 14 * 24 * 3600
  sqs_managed_sse_enabled    = true
  redrive_policy             = jsonencode({ deadLetterTargetArn = aws_sqs_queue.dead["uploads-dead"].arn, maxReceiveCount = 5 })
}

resource "aws_sqs_queue_policy" "uploads" {
  queue_url = aws_sqs_queue.uploads.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "OfTheInbox"
      Effect    = "Allow"
      Principal = { Service = "s3.amazonaws.com" }
      Action    = "sqs:SendMessage"
      Resource  = aws_sqs_queue.uploads.arn
      Condition = {
        ArnEquals    = { "aws:SourceArn" = aws_s3_bucket.this.arn }
        StringEquals = { "aws:SourceAccount" = var.account }
      }
    }]
  })
}

resource "aws_s3_bucket_notification" "inbox" {
  bucket = aws_s3_bucket.this.id

  queue {
    id            = "inbox"
    queue_arn     = aws_sqs_queue.uploads.arn
    events        = ["s3:ObjectCreated:*"]
    filter_prefix = "inbox/"
  }

  # S3 tries the queue when it is told of it.
  depends_on = [aws_sqs_queue_policy.uploads]
}
