variable "grid" {
  description = "Name of the grid."
  type        = string
}

variable "region" {
  description = "Region, for logs."
  type        = string
}

variable "architecture" {
  description = "What the image is built for: arm64 or x86_64."
  type        = string
}

variable "settings" {
  description = "The variable workers of the root module."
  type = object({
    image             = string
    cpu               = number
    memory_mb         = number
    disk_gb           = number
    slots             = number
    spot_max          = number
    on_demand_max     = number
    scaling           = bool
    policy            = string
    grace_s           = number
    drain_s           = number
    boot_s            = number
    spot_price        = number
    on_demand_price   = number
    reclaims_per_hour = number
    capacity          = string
    on_demand_share   = number
    instance_types    = list(string)
    instance_max      = number
    vpc_id            = string
    subnet_ids        = list(string)
    public_ip         = bool
  })
}

variable "environment" {
  description = "Environment of a container, but for its lane."
  type        = map(string)
}

variable "table" {
  description = "The table."
  type        = object({ name = string, arn = string, stream_arn = string })
}

variable "bucket" {
  description = "The bucket."
  type        = object({ name = string, arn = string })
}

variable "lanes" {
  description = "The queues of hints, by lane and priority."
  type        = map(object({ name = string, arn = string, url = string }))
}

variable "kms_key_arn" {
  description = "Key of the customer, or null."
  type        = string
}

variable "log_retention_days" {
  description = "Days for which logs are kept."
  type        = number
}

variable "invoke_arns" {
  description = "Lambdas that tasks may name."
  type        = list(string)
}
