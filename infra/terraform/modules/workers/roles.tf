# What the program in a container may do, and what ECS may do to start it.

locals {
  container_lanes = [for name, queue in var.lanes : queue.arn if !startswith(name, "lambda-")]
}

module "task" {
  source = "../role"

  name        = "${var.grid}-worker"
  description = "Claims and runs chunks of long tasks"
  service     = "ecs-tasks.amazonaws.com"
  table       = var.table
  table_rights = [
    { actions = ["GetItem", "BatchGetItem"], partitions = ["S#*", "C#*", "F#*", "E#*"] },
    { actions = ["UpdateItem"], partitions = ["C#*"] },
    { actions = ["PutItem", "DeleteItem"], partitions = ["W"] },
  ]
  bucket = var.bucket
  object_rights = [
    { actions = ["GetObject"], prefixes = ["p/", "f/", "k/"] },
    { actions = ["PutObject", "AbortMultipartUpload"], prefixes = ["r/", "l/", "k/"] },
    { actions = ["DeleteObject"], prefixes = ["k/"] },
  ]
  learns_of_missing_objects = true
  kms_key_arn               = var.kms_key_arn
  statements = concat(
    [{ Action = ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility", "sqs:GetQueueUrl"], Resource = local.container_lanes }],
    length(var.invoke_arns) == 0 ? [] : [{ Action = ["lambda:InvokeFunction"], Resource = var.invoke_arns }],
    # While it holds chunks it asks that others be stopped first.
    [{ Action = ["ecs:GetTaskProtection", "ecs:UpdateTaskProtection"], Resource = ["${replace(aws_ecs_cluster.this.arn, ":cluster/", ":task/")}/*"] }],
  )
}

module "execution" {
  source = "../role"

  name        = "${var.grid}-worker-start"
  description = "Pulls the image and writes the log"
  service     = "ecs-tasks.amazonaws.com"
  table       = var.table
  bucket      = var.bucket
  statements = concat(
    [{ Action = ["logs:CreateLogStream", "logs:PutLogEvents"], Resource = ["${aws_cloudwatch_log_group.this.arn}:*"] }],
    # The login of ECR has no resource.
    local.repository_arn == null ? [] : [
      { Action = ["ecr:GetAuthorizationToken"], Resource = ["*"] },
      { Action = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"], Resource = [local.repository_arn] },
    ],
  )
}

data "aws_partition" "this" {}

locals {
  # The repository, if the image is in ECR: account.dkr.ecr.region.domain/name:tag
  ecr            = one(regexall("^([0-9]{12})\\.dkr\\.ecr\\.([a-z0-9-]+)\\.[^/]+/([^:@]+)", var.settings.image))
  repository_arn = local.ecr == null ? null : "arn:${data.aws_partition.this.partition}:ecr:${local.ecr[1]}:${local.ecr[0]}:repository/${local.ecr[2]}"
}
